-- Run once, when the database is new.
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
