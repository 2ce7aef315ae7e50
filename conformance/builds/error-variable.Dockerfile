FROM busybox
ENV A=${B
# says: failed to process
