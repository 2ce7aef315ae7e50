FROM scratch
COPY dir /dir
ENV A=b
WORKDIR /w
