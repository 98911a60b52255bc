"""What else a release asks: the guardrail, Cognito, and the pipeline that it invokes."""
