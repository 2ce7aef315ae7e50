FROM busybox
COPY a.txt /x/../up/a
COPY /dir/../b.txt /b
