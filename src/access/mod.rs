//! API keys, accounts, scopes, rate limits, audit.
