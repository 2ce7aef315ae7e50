FROM busybox
COPY --chown=nobody:nosuch a.txt /a
