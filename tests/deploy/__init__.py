"""The files of ``deploy/`` and the image: held to their schemas, and to the program."""
