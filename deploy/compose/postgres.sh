#!/bin/sh
# Makes the user and the database of the views. The user is no superuser, so that row-level
# security holds for it.
set -e
psql -v ON_ERROR_STOP=1 -v password="$(cat /run/secrets/views)" --username postgres <<-SQL
	CREATE ROLE views LOGIN PASSWORD :'password';
	CREATE DATABASE views OWNER views;
SQL
