"""`finetrail rebuild`: what is asked wrongly is said before anything is waited for."""

from finetrail.cli.exits import Exit
from tests.cli.conftest import Cli


def test_views_of_no_stack_are_not_rebuilt(cli: Cli) -> None:
    assert cli("rebuild").exit_code == Exit.UNREACHABLE
