FROM busybox
COPY --chown=nobodyknows a.txt /a
# says: unable to convert uid/gid chown string to host mapping: can't find uid for
