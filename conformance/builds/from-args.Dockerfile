ARG NAME=busy
ARG TAG
FROM ${NAME}box:${TAG:-latest} AS one
ARG TAG=inner
RUN echo "[$TAG] [$NAME]" >/v
FROM one
COPY --from=one /v /w
