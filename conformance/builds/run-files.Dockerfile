FROM busybox
RUN mkdir -p /a/b && echo x >/a/b/f && chmod 4755 /a/b/f && ln -s f /a/b/l && ln /a/b/f /a/b/h && mkfifo /a/p && chown 3:4 /a/b
RUN mknod /a/dev c 1 3
