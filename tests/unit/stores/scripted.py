"""A client with scripted answers, for those that no endpoint gives on demand."""

from __future__ import annotations

from typing import Any, cast

from mypy_boto3_dynamodb import DynamoDBClient

from reconciler.stores.dynamodb import DynamoDB


class Scripted:
    """Answers each call with the next of ``answers``, and repeats the last one forever."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.pauses: list[Any] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**request: Any) -> dict[str, Any]:
            self.requests.append((operation, request))
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    @property
    def dynamodb(self) -> DynamoDB:
        """A ``DynamoDB`` that calls this client and records its pauses instead of waiting."""
        return DynamoDB(cast("DynamoDBClient", self), sleep=self.pauses.append)
