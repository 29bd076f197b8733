"""What a server's refusal means, and what to type: MLflow's own words are long and name neither."""

import re
from typing import NamedTuple

AGAIN = "then python cli.py track sync"


class Refusal(NamedTuple):
    reason: str
    remedy: str


_KNOWN = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its TLS certificate is not signed by anybody this machine knows",
        "set MLFLOW_TRACKING_SERVER_CERT_PATH to the PEM file of who signed it, " + AGAIN,
    ),
    (
        "Could not find a suitable TLS CA certificate bundle",
        "the file that MLFLOW_TRACKING_SERVER_CERT_PATH names is not there",
        "set it to the PEM file of who signed the server's certificate, " + AGAIN,
    ),
    (
        "WRONG_VERSION_NUMBER|record layer failure",
        "it does not speak TLS",
        "begin MLFLOW_TRACKING_URI with http:// where that is meant, " + AGAIN,
    ),
    (
        "RemoteDisconnected|BadStatusLine",
        "it closes the connection without a word",
        "begin MLFLOW_TRACKING_URI with https:// if it speaks TLS, " + AGAIN,
    ),
    (
        "error code 401|UNAUTHENTICATED|not authenticated",
        "it does not know this user, or the password is wrong",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN), "
        + AGAIN,
    ),
    (
        "error code 403|PERMISSION_DENIED|Permission denied",
        "this user may not write there",
        "ask for the permission EDIT on the experiment, or name another in tracking.experiment "
        "of params.yaml, " + AGAIN,
    ),
    (
        "password authentication failed|no password supplied",
        "the database does not know this user, or the password is wrong",
        "check the user and the password in MLFLOW_TRACKING_URI, " + AGAIN,
    ),
    (
        "Unable to locate credentials|InvalidAccessKeyId|SignatureDoesNotMatch",
        "its artifacts lie on S3, which takes no files from here",
        "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and MLFLOW_S3_ENDPOINT_URL, " + AGAIN,
    ),
)


def refusal(text: str) -> Refusal | None:
    """The known refusal that an error's whole text stands for; None where it is another."""
    for pattern, reason, remedy in _KNOWN:
        if re.search(pattern, text):
            return Refusal(reason, remedy)
    return None
