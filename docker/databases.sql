-- Run once, when the database is new. In the locale C, which a container may have, the default is SQL_ASCII, and MLflow is refused
-- each letter beyond ASCII.
CREATE DATABASE mlflow ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE prefect ENCODING 'UTF8' TEMPLATE template0;
