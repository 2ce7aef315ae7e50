FROM busybox
SHELL ["/bin/sh", "-ec"]
RUN echo $0 >/zero
RUN ["/bin/sh", "-c", "echo exec >/exec"]
