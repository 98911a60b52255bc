"""The benchmark: the cost of a sweep compared with a floor, on DynamoDB Local (``make bench``)."""
