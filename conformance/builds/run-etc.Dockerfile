FROM busybox
RUN echo a >/etc/new
RUN chmod 711 /etc
RUN cat /etc/hosts >/dev/null
