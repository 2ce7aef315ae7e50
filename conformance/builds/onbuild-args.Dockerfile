FROM busybox AS base
ONBUILD ARG V=1
ONBUILD RUN echo "$V" >/v
ONBUILD WORKDIR /later
ONBUILD USER 5
FROM base AS made
FROM made
RUN cat /v >/tmp/w
# flags: --build-arg V=7
