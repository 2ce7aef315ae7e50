ARG BASE=busybox
ARG UNUSED
FROM ${BASE}
ARG BASE
ARG V=1
ARG W
ENV X=$V-$W-$BASE
RUN echo "$V $W" >/v
ENV V=env
RUN echo "$V" >/w
# flags: --build-arg W=given --build-arg V=2
