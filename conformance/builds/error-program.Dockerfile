FROM busybox
RUN ["/no/such"]
# says: no such file or directory
