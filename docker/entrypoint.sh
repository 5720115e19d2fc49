#!/bin/sh
# `docker run IMAGE nmf …` is `dcf nmf …`; programs are named as such: `docker run IMAGE dask scheduler …`.
set -eu
case "${1-}" in
  dask | dcf | python | sh) exec "$@" ;;
  *) exec dcf "$@" ;;
esac
