-- Version 7 changes routines of PostgreSQL. Here there are none.
SELECT 0;
