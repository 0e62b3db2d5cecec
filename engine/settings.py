"""The one settings file, driven by the environment; `engine.lib.env` refuses nonsense."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import environ

from engine.lib.env import Env, EnvironmentProblem, read_env_file

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(Env().text("DATA_DIR", str(BASE_DIR / ".data"))).resolve()
env = Env(fallback=read_env_file(DATA_DIR / "run" / "env"))

DEBUG = env.boolean("DEBUG", False)
SECRET_KEY = env.text("SECRET_KEY")
# `keyid:base64key` pairs; the first encrypts, all decrypt (engine/lib/crypto.py).
ENCRYPTION_KEYS = env.words("ENCRYPTION_KEYS", [])
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", sorted(LOCAL_HOSTS))
# How many proxies of ours stand in front: that many entries of X-Forwarded-For are believed.
TRUSTED_PROXIES = env.integer("TRUSTED_PROXIES", 0, low=0, high=8)
PORT = env.integer("PORT", 8000, low=1, high=65535)
EDGE_PORT = env.integer("EDGE_PORT", 8001, low=1, high=65535)
BASE_URL = env.text("BASE_URL", f"http://127.0.0.1:{PORT}")
# Which door this process is: `web` serves everything, `edge` only the two hot routes.
DOOR = env.choice("LAISEE_DOOR", "web", ("web", "edge"))

# --- Postgres -----------------------------------------------------------------------------------
DATABASE_URL = env.text("DATABASE_URL")
MIGRATION_DATABASE_URL = env.text("MIGRATION_DATABASE_URL", DATABASE_URL)
# Seconds; a hung connection attempt must not hold a request for longer than its client waits.
DATABASE_CONNECT_TIMEOUT_S = 3


def database(url: str) -> dict[str, object]:
    config: dict[str, object] = environ.Env.db_url_config(url)
    if config.get("ENGINE") != "django.db.backends.postgresql":
        raise EnvironmentProblem("DATABASE_URL must begin with postgres:// (nothing else will do)")
    # Threads of the web server borrow connections; an idle one is checked before use, so that a
    # restarted Postgres costs no request.
    config["CONN_MAX_AGE"] = 0
    config["OPTIONS"] = {
        "connect_timeout": DATABASE_CONNECT_TIMEOUT_S,
        "application_name": "laisee",
    }
    return config


APP_DATABASE_ROLE = str(database(DATABASE_URL)["USER"])
# manage.py sets this for the commands that need the owner's role (migrate, grant_app_rights).
RUN_AS_OWNER = env.boolean("LAISEE_RUN_AS_OWNER", False)
DATABASES = {"default": database(MIGRATION_DATABASE_URL if RUN_AS_OWNER else DATABASE_URL)}
TESTING = "pytest" in sys.modules
if DOOR == "edge" or env.boolean("DATABASE_POOL", False):
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True  # of an idle one, when it is borrowed
    DATABASES["default"]["OPTIONS"]["pool"] = {  # type: ignore[index]
        "min_size": 1,
        "max_size": env.integer("DATABASE_POOL_SIZE", 9, low=1, high=100),
        "timeout": 5,
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- People's traces ------------------------------------------------------------------------------
# Days after which phones, networks and visitors (keyed hashes) are forgotten.
IDENTITIES_KEPT_DAYS = env.integer("IDENTITIES_KEPT_DAYS", 90, low=1, high=3_650)

# --- Redis or Valkey ------------------------------------------------------------------------------
REDIS_URL = env.text("REDIS_URL")
REDIS_CLUSTER = env.boolean("REDIS_CLUSTER", False)
# The broker may be flushed without losing a fen, so it lives apart from the stock of portions. A
# cluster has one database only, and Celery's broker can't be one.
BROKER_URL = env.text("BROKER_URL", None if REDIS_CLUSTER else REDIS_URL.rsplit("/", 1)[0] + "/1")

# --- The payout sandbox of this copy (`make run` starts one); empty: there is none ----------------
SANDBOX_URL = env.text("SANDBOX_URL", "")
SANDBOX_SECRET = env.text("SANDBOX_SECRET", "")

# --- Django ---------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",  # before Django's admin, whose site and templates it takes the place of
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "engine.apps.LogInsConfig",  # axes: counts failed log-ins
    "django_otp",
    "django_otp.plugins.otp_totp",
    "engine",
    "packets",
    "campaign",
    "referrals",
]
# The Admin* ones are Django's, at work under /admin only: a claim must not pay for sessions.
MIDDLEWARE = [
    "engine.lib.middleware.RequestContextMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "engine.lib.middleware.AdminSession",
    "engine.lib.middleware.AdminLocale",
    "engine.lib.middleware.AdminTimezone",
    "engine.lib.middleware.AdminCsrf",
    "engine.lib.middleware.AdminUser",
    "engine.staff.middleware.AdminSecondFactor",
    "engine.lib.middleware.AdminMessages",
    "engine.lib.middleware.AdminFrames",
    "axes.middleware.AxesMiddleware",
]
# Not by their own names in MIDDLEWARE, but there: CSRF and frame protection of the admin.
SILENCED_SYSTEM_CHECKS = [
    "security.W002",
    "security.W003",
    # What other hosts below our name do isn't ours to promise to every browser.
    "security.W005",
    "security.W021",
]
ROOT_URLCONF = "engine.edge_urls" if DOOR == "edge" else "engine.urls"
WSGI_APPLICATION = "engine.wsgi.application"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # Before those of the theme, whose pages some of ours take the place of.
        "DIRS": [BASE_DIR / "engine" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
# What nobody chose a language for (the API, commands, logs) is said in English; the staff's screens
# are in Chinese until they choose otherwise (engine/lib/middleware.py).
LANGUAGE_CODE = "en"
STAFF_LANGUAGE = "zh-hans"
LANGUAGES = [("zh-hans", "简体中文"), ("en", "English")]
# Ours comes first: it also holds what the admin's theme leaves untranslated (make messages).
LOCALE_PATHS = [BASE_DIR / "locale"]
LANGUAGE_COOKIE_NAME = "laisee_language"
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_HTTPONLY = True
TIME_ZONE = "UTC"
# The zone of the admin's lists and filters; a campaign's own times are shown in its own zone.
STAFF_TIME_ZONE = env.text("STAFF_TIME_ZONE", "Asia/Shanghai")
USE_I18N = True
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if TESTING or DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
# Only what a page links to is kept and compressed: it halves the time of a first start.
WHITENOISE_KEEP_ONLY_HASHED_FILES = True
WHITENOISE_SKIP_COMPRESS_EXTENSIONS = ["gz", "map", "png", "woff", "woff2"]
# Bodies: 16 KB everywhere but /server/events (engine/lib/renderers.py holds the finer limits).
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_100_000
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SECURE_COOKIES = env.boolean("SECURE_COOKIES", False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = SECURE_COOKIES
# TLS ends at a proxy of ours, which says so. Without it lists would lead to http:// and the admin
# would refuse its own forms.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
# The proxy redirects as well; this is for whoever finds a way around it. Probes come without TLS.
SECURE_SSL_REDIRECT = SECURE_COOKIES and TRUSTED_PROXIES > 0
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)/?$"]
# Seconds for which browsers refuse to come without TLS; 0: they aren't told.
SECURE_HSTS_SECONDS = env.integer("HSTS_SECONDS", 0, low=0, high=63_072_000)

# --- Log-ins of staff (engine/staff/) -------------------------------------------------------------
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # first: who is locked out isn't even tried
    "django.contrib.auth.backends.ModelBackend",
]
REQUIRE_SECOND_FACTOR = env.boolean("REQUIRE_SECOND_FACTOR", True)
# Whoever moves money or decides over it, and superusers.
SECOND_FACTOR_GROUPS = ["approver", "finance", "sre", "risk"]
OTP_TOTP_ISSUER = "Laisee"
# The cookie outlives no working day; half an hour without use ends it too (engine/staff/sessions).
SESSION_COOKIE_AGE = 8 * 3600
SESSION_COOKIE_SAMESITE = "Lax"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = dt.timedelta(minutes=15)
AXES_RESET_ON_SUCCESS = True
# A guesser at one address is stopped, and can't lock the person out at theirs.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "engine.lib.middleware.client_ip"
AXES_LOCKOUT_CALLABLE = "engine.staff.views.locked_out"
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_VERBOSE = False
# Who logged in stands in the audit log, not in a second table of addresses.
AXES_DISABLE_ACCESS_LOG = True

# --- Mail: without a host nothing is sent ---------------------------------------------------------
EMAIL_HOST = env.text("EMAIL_HOST", "")
EMAIL_PORT = env.integer("EMAIL_PORT", 587, low=1, high=65535)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = env.boolean("EMAIL_USE_TLS", True)
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", "laisee@localhost")

# --- The admin's look -----------------------------------------------------------------------------
# Said on every page, so that nobody launches in the wrong place.
ENVIRONMENT = env.choice("ENVIRONMENT", "local", ("local", "staging", "production"))
# The demo's own app (referrals/demo/): whoever opens a link of the demo may join and claim without
# an account. It gives money to anybody, so it runs on one's own machine or not at all.
DEMO_APP = env.boolean("DEMO_APP", False)
if DEMO_APP and (ENVIRONMENT != "local" or not LOCAL_HOSTS.issuperset(ALLOWED_HOSTS)):
    raise EnvironmentProblem(
        "DEMO_APP may be True only where ENVIRONMENT is local and ALLOWED_HOSTS names this machine"
    )
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
UNFOLD = {
    "LOGIN": {"form": "engine.staff.forms.LoginForm"},
    "SITE_TITLE": "Laisee",
    "SITE_HEADER": "Laisee",
    "SITE_URL": None,
    "SITE_SYMBOL": "redeem",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_LANGUAGES": False,  # they stand in the header: engine/templates/unfold/helpers/
    "ENVIRONMENT": "engine.lib.adminkit.environment_label",
    "GLOBAL_CALLBACK": "campaign.admin.shell.global_context",
    "STYLES": ["engine.lib.adminkit.stylesheet"],
    "SCRIPTS": ["engine.lib.adminkit.script"],
    "BORDER_RADIUS": "6px",
    # The gold of a red packet; red is kept for what can't be undone.
    "COLORS": {
        "primary": {
            "50": "#fffbeb",
            "100": "#fef3c7",
            "200": "#fde68a",
            "300": "#fcd34d",
            "400": "#fbbf24",
            "500": "#f59e0b",
            "600": "#b45309",
            "700": "#92400e",
            "800": "#78350f",
            "900": "#5f2a0d",
            "950": "#451a03",
        }
    },
    "SIDEBAR": {"navigation": "campaign.admin.shell.navigation"},
}

# --- API ------------------------------------------------------------------------------------------
CORS_ALLOWED_ORIGINS = env.words("CORS_ORIGINS", [])
CORS_URLS_REGEX = r"^/api/.*$"
CORS_EXPOSE_HEADERS = [
    "X-Request-ID",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "ETag",
    "Idempotent-Replayed",
]
CORS_ALLOW_HEADERS = [
    "accept",
    "authorization",
    "content-type",
    "idempotency-key",
    "if-none-match",
    "x-request-id",
]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["engine.lib.auth.ClientTokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["engine.lib.renderers.OrjsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["engine.lib.renderers.OrjsonParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "engine.lib.problem.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Laisee",
    "DESCRIPTION": "Viral red-packet campaigns: packets, claims, wallets and proofs.",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "PREPROCESSING_HOOKS": ["engine.lib.openapi.only_ours"],
    "POSTPROCESSING_HOOKS": ["engine.webhooks.openapi.webhooks", "engine.lib.openapi.finish"],
    # Components come from msgspec structs, not from serializers with read-only fields.
    "ENUM_ADD_EXPLICIT_BLANK_NULL_CHOICE": False,
}

# --- People's own packets (packets/people_packets.py) ---------------------------------------------
# Fen; each portion is at least that much. WeChat's own bound is one fen.
PEOPLE_PORTION_MIN_FEN = env.integer("PEOPLE_PORTION_MIN_FEN", 1, low=1, high=10_000)
# Only money that came in longer ago than so many hours may be sent on; 0: any. Whoever farms a
# campaign with many accounts would gather the money in one of them before anybody looks.
PEOPLE_MONEY_AGE_H = env.integer("PEOPLE_MONEY_AGE_H", 0, low=0, high=31 * 24)

# --- Webhooks (engine/webhooks/) ------------------------------------------------------------------
# For development: this machine itself may be called, also without TLS; nothing else private may.
WEBHOOK_ALLOW_LOOPBACK = env.boolean("WEBHOOK_ALLOW_LOOPBACK", False)

# --- Celery: a wake-up, never the record ----------------------------------------------------------
CELERY_BROKER_URL = BROKER_URL
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_SOFT_TIME_LIMIT = 25
CELERY_TASK_TIME_LIMIT = 30
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Longer than the hard time limit, or a slow task would run twice at once.
    "visibility_timeout": 120,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_keepalive": True,
    "socket_timeout": 30,
    "socket_connect_timeout": 3,
    "health_check_interval": 25,
}
CELERY_VISIBILITY_TIMEOUT = 120
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 10
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_CREATE_MISSING_QUEUES = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"

# --- Payouts: see packets/payouts/ ----------------------------------------------------------------
# Seconds before a payout whose outcome isn't final is asked for again: the first waits, then every
# …THEN_S, until …GIVE_UP_S after the first send, when a person has to look.
PAYOUT_QUERY_SCHEDULE_S = env.seconds(
    "PAYOUT_QUERY_SCHEDULE_S", (5, 30, 120, 600, 3_600, 6 * 3_600)
)
PAYOUT_QUERY_THEN_S = env.seconds("PAYOUT_QUERY_THEN_S", (3_600,))[0]
PAYOUT_GIVE_UP_S = env.seconds("PAYOUT_GIVE_UP_S", (48 * 3_600,))[0]
# A call under way holds its payout so long: more than the longest call (providers/base.py).
PAYOUT_LEASE_S = env.seconds("PAYOUT_LEASE_S", (60,))[0]

# --- Logs -----------------------------------------------------------------------------------------
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = env.choice("LOG_FORMAT", "json", ("json", "console"))
LOGGING_CONFIG = None  # engine/lib/logs.py configures structlog and the standard library together
