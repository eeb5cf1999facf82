"""Orgs, their members, and the keys and tokens that act for them."""

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models

from statebacked_site.identifiers import (
    IDENTIFIER_LENGTH_MAX,
    new_key_id,
    new_org_id,
    new_user_id,
)


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """A user with this e-mail address; without a password only links and tokens sign in."""
        user = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """A person who signs in to the dashboard or uses the CLI."""

    public_id = models.CharField(max_length=IDENTIFIER_LENGTH_MAX, unique=True, default=new_user_id)
    email = models.EmailField(unique=True)
    name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    def __str__(self) -> str:
        return self.email

    def has_usable_password(self) -> bool:
        # Django takes an empty hash for one of a password.
        return bool(self.password) and super().has_usable_password()


class Org(models.Model):
    """The tenant: owns machines, instances and keys."""

    public_id = models.CharField(max_length=IDENTIFIER_LENGTH_MAX, unique=True, default=new_org_id)
    name = models.CharField(max_length=200)
    allow_anonymous_access = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    members: "models.ManyToManyField[User, Membership]" = models.ManyToManyField(
        User, through="Membership", related_name="orgs"
    )

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A person's role in an org; the role decides the scopes of their access tokens."""

    class Role(models.TextChoices):
        ADMIN = "admin"
        WRITE = "write"
        READ = "read"

    org = models.ForeignKey(Org, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["org", "user"], name="one_membership_per_org")
        ]


class Key(models.Model):
    """Signs tokens (HS256) for end users; its scopes bound every token that it signs.

    The secret must be readable, since HS256 needs it to verify: it is stored encrypted with a
    key derived from the site's secret key (authz/secrets.py).
    """

    org = models.ForeignKey(Org, on_delete=models.CASCADE, related_name="keys")
    public_id = models.CharField(max_length=IDENTIFIER_LENGTH_MAX, unique=True, default=new_key_id)
    name = models.CharField(max_length=200)
    secret_encrypted = models.BinaryField()
    scopes = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True)


class AccessToken(models.Model):
    """An opaque bearer token of a person; only its hash is stored."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="access_tokens")
    # Set: the token works in this org only. Empty: in every org of the person.
    org = models.ForeignKey(Org, on_delete=models.CASCADE, null=True, blank=True)
    name = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()


class SignInLink(models.Model):
    """A link that signs one person in once; only the hash of its secret is stored."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sign_in_links")
    sha256 = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
