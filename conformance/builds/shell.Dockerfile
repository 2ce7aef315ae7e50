FROM busybox
SHELL ["/bin/sh", "-e", "-c"]
RUN echo $- >/flags
CMD echo $0
ENTRYPOINT echo shell
