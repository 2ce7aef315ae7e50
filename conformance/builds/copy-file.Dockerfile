FROM busybox
COPY a.txt /b/c/d.txt
