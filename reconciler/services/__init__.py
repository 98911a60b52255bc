"""Other services that a release uses: the guardrail, Cognito, and the task pipeline."""
