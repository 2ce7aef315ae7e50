FROM busybox
COPY dir /dir
COPY dir /tmp
COPY dir /etc/
