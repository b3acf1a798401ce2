-- Lists of single requests, the newest first, of one team, user, account or model: without these a
-- rare one is looked for in all requests.
CREATE INDEX usage_requests_team ON usage_requests (team_id, at);
CREATE INDEX usage_requests_user ON usage_requests (user_id, at);
CREATE INDEX usage_requests_account ON usage_requests (account_id, at);
CREATE INDEX usage_requests_model ON usage_requests (model, at);
