FROM busybox
RUN true
# flags: --target nowhere
# says: failed to reach build target nowhere in Dockerfile
