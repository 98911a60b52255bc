"""Check the files of ``deploy/`` and the image against their schemas and the program."""
