FROM busybox
ENV D=/some/place F=a.txt N=3
WORKDIR ${D}/deep
COPY $F ${F}.copy
EXPOSE $N
VOLUME ${D}/data
USER ${U:-12}:${G:-13}
LABEL of.$N="$D"
