"""What a user does: each verb is a function of a configuration and a folder."""
