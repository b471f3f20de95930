"""The researcher's desk: pages and forms under /desk.

Views (one blueprint each): `views` (what the study shows), `study_views` (stop, resume, message, close),
`account_views` (one's own sign-in and second factor), `user_views` (who may sign in). Their numbers come from
`overview`, `progress`, `listeners`, `questions` and `agreement`; `auth` guards every page, `sign_in` checks passwords
and codes, `rendering` renders a page, `context` gives access to the application and the request.
Permissions: server.accounts.roles. Templates: server/templates/desk.
"""
