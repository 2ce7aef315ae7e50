FROM busybox
COPY a.txt b.txt /x
# says: When using COPY with more than one source file, the destination must be a directory and end with a /
