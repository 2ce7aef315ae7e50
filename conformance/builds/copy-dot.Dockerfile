FROM busybox
WORKDIR /here
COPY . .
