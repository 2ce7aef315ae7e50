FROM busybox
COPY --foo=x a.txt /a
# says: nknown flag: foo
