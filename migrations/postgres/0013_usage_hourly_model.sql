-- Reports by the hour of one model: without this all sums of the time are read for it.
CREATE INDEX usage_hourly_model ON usage_hourly (model, hour);
