FROM busybox
RUN mkdir /kept && chmod 700 /kept
COPY a.txt /kept
COPY b.txt /made/
