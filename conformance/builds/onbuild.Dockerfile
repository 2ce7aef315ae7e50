FROM busybox AS base
ONBUILD COPY a.txt /on/
ONBUILD RUN echo trigger >/t
ONBUILD ENV T=1
FROM base
RUN cat /on/a.txt /t >/all
