FROM busybox
FOO bar
# says: unknown instruction: FOO
