FROM busybox
WORKDIR /w/x
COPY a.txt ../y/
COPY a.txt z
