"""The benchmark: what a sweep costs beside the bare floor, on DynamoDB Local (``make bench``)."""
