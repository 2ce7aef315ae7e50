FROM busybox
ARG A
ARG B=b C=
LABEL a="$A" b=$B c=$C
RUN echo "[$A][$B]" >/f
# flags: --build-arg B=x
