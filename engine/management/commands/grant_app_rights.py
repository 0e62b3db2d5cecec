"""`manage.py grant_app_rights`: what the application's role may do, table by table.

Run by the owner after every `migrate`; running it again changes nothing. It says what is, not what
changes: each table's rights are taken away and given anew in one transaction, so that a right which
was handed out by hand doesn't stay. The promise it keeps: whoever gets hold of the application's
password still can't rewrite a transfer, a claim or the audit log, nor give a wallet money.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction
from psycopg import sql

READ = ("SELECT",)
ADD = ("SELECT", "INSERT")
ADD_AND_CHANGE = ("SELECT", "INSERT", "UPDATE")
EVERYTHING = ("SELECT", "INSERT", "UPDATE", "DELETE")

# Every table that isn't named here is EVERYTHING. TRUNCATE, REFERENCES and TRIGGER are nobody's.
TABLE_RIGHTS: dict[str, tuple[str, ...]] = {
    "django_migrations": READ,
    "engine_auditevent": ADD,
    "engine_audithead": READ,  # its trigger writes it, with the owner's rights
    "engine_outboxevent": ADD,
    "engine_webhookattempt": ADD,
    "engine_webhookdelivery": ADD_AND_CHANGE,
    "engine_webhookendpoint": ADD_AND_CHANGE,
    "campaign_disclosure": ADD,
    "packets_account": ADD,  # the ledger's trigger moves balances, with the owner's rights
    "packets_transfer": ADD,
    "packets_laneepoch": ADD,
    "packets_ticket": ADD,
    "packets_peoplepacket": ADD,
    "packets_claim": READ,  # laisee_commit_claims writes it, with the owner's rights
    "packets_claimstate": ADD_AND_CHANGE,  # a trigger lets only "parked" and "held" go on
    "packets_hold": ADD,
    "packets_riskrule": ADD,
    "packets_holdappeal": ADD,
    "packets_lanecursor": ADD_AND_CHANGE,
    "packets_lane": ADD,
    "referrals_banreward": ADD,
    "referrals_referral": ADD,
    "referrals_riskact": ADD,
    "referrals_riskcase": ADD,
    "referrals_riskmember": ADD_AND_CHANGE,  # rows are locked, which asks for the right to change
    "referrals_riskpolicy": ADD,
    "referrals_riskreward": ADD,
    "referrals_risktrial": ADD,
    "referrals_reward": ADD,
    "referrals_serverevent": ADD,
    # Triggers let a payout change only along its machine's ways, and the others end once.
    "packets_payout": ADD_AND_CHANGE,
    "packets_payoutnumber": ADD,
    "packets_payoutcall": ADD,
    "packets_payoutmark": ADD_AND_CHANGE,
    "packets_providerchange": ADD_AND_CHANGE,
    "packets_statement": ADD_AND_CHANGE,
    "packets_statementline": ADD,
    "packets_difference": ADD,
    "packets_stockcheck": ADD,
}
# Further columns that may be changed: what a lane has given is counted by laisee_commit_claims;
# of a number and a call only how they ended.
COLUMN_RIGHTS: dict[str, tuple[str, ...]] = {
    "packets_lane": ("state", "epoch", "loader", "loader_until", "direct_until"),
    # A trigger lets it be said once.
    "packets_hold": ("state", "resolved_by", "resolved_at", "reason"),
    "packets_payoutnumber": ("state", "ended_at"),
    "packets_payoutcall": ("ended_at", "result", "code", "detail", "http_status", "not_found"),
    # A draft stays as it was tried, an act as it was asked for; how far they are changes.
    "referrals_risktrial": ("seen", "result", "done_at", "next_attempt_at", "attempts"),
    "referrals_riskact": ("of", "done", "done_at", "next_attempt_at", "attempts"),
    "referrals_riskcase": ("score", "evidence", "decision", "policy_id"),
    # What was found stays as it was found; what became of it may be said.
    "packets_difference": ("state", "resolution", "reason", "resolved_by", "resolved_at"),
}

# Two at once would fail on "tuple concurrently updated"; any number nobody else uses will do.
ADVISORY_LOCK = 0x6C616973


class Command(BaseCommand):
    help = "Sets what the application's database role may do (run as the owner, after migrate)."
    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        role = settings.APP_DATABASE_ROLE
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT current_user, current_schema()")
            owner, schema = cursor.fetchone()
            if role == owner:
                self.stdout.write(
                    f"The application logs in as {role}, which owns the tables: there is nothing to"
                    " withhold from it. Set MIGRATION_DATABASE_URL to an owner of its own to have"
                    " Postgres refuse what the application must not do."
                )
                return
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
            if cursor.fetchone() is None:
                raise CommandError(f"Postgres has no role {role!r} (it is named in DATABASE_URL)")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
            tables = self._own(cursor, schema)
            for table in tables:
                self._grant(cursor, schema, table, role)
            self._grant_schema(cursor, schema, role)
        if options["verbosity"] > 0:
            self.stdout.write(f"{role} may use {len(tables)} tables of {owner} as it should.")

    def _own(self, cursor: Any, schema: str) -> list[str]:
        cursor.execute(
            "SELECT c.relname FROM pg_class c"
            " WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')"
            "   AND pg_has_role(c.relowner, 'USAGE') ORDER BY 1",
            [schema],
        )
        return [row[0] for row in cursor.fetchall()]

    def _grant(self, cursor: Any, schema: str, table: str, role: str) -> None:
        names = {"table": sql.Identifier(schema, table), "role": sql.Identifier(role)}
        rights = sql.SQL(", ").join(map(sql.SQL, TABLE_RIGHTS.get(table, EVERYTHING)))
        for statement in (
            "REVOKE ALL ON {table} FROM {role}, PUBLIC",
            "GRANT {rights} ON {table} TO {role}",
        ):
            cursor.execute(sql.SQL(statement).format(rights=rights, **names))
        if table in COLUMN_RIGHTS:
            columns = sql.SQL(", ").join(map(sql.Identifier, COLUMN_RIGHTS[table]))
            cursor.execute(
                sql.SQL("GRANT UPDATE ({columns}) ON {table} TO {role}").format(
                    columns=columns, **names
                )
            )

    def _grant_schema(self, cursor: Any, schema: str, role: str) -> None:
        """The schema, its sequences and functions, and what later migrations will add to them.

        A table that a later migration adds is EVERYTHING until this command runs again, which it
        does after each migrate. No CREATE on the schema: with it the application could put a
        function or a table of its own in front of the owner's.
        """
        names = {"schema": sql.Identifier(schema), "role": sql.Identifier(role)}
        for statement in (
            "REVOKE CREATE ON SCHEMA {schema} FROM {role}, PUBLIC",
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
            "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}"
            " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}"
            " GRANT USAGE, SELECT ON SEQUENCES TO {role}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT EXECUTE ON FUNCTIONS TO {role}",
        ):
            cursor.execute(sql.SQL(statement).format(**names))
