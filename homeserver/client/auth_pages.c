/* Pages for people whose client cannot do a stage of authentication or the login itself.
 * Spec: client-server, "Fallback", "Login Fallback". */
#include "homeserver/client/account_priv.h"

#define STYLE                                                                                      \
    "<style>body{font-family:sans-serif;max-width:24em;margin:3em auto;padding:0 1em}"             \
    "input,button{display:block;width:100%;box-sizing:border-box;margin:.5em 0;padding:.6em}"      \
    "#note{color:#a00}</style>"
#define HEAD                                                                                       \
    "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">"                              \
    "<meta name=\"viewport\" content=\"width=device-width\"><title>Sign in</title>" STYLE          \
    "</head><body>"

/* The page of a stage: a form whose script sends what was entered as JSON. What it needs to know
 * stands in front of it as `stage` and `params`. */
static const char stage_script[] =
    "const session=new URLSearchParams(location.search).get('session');"
    "const form=document.getElementById('form'),note=document.getElementById('note');"
    "function field(name,label,type){const i=document.createElement('input');i.name=name;"
    "i.placeholder=label;i.type=type;form.insertBefore(i,form.lastChild);}"
    "if(stage==='m.login.password'){field('user','User name','text');"
    "field('password','Password','password');}"
    "if(stage==='m.login.registration_token'){field('token','Registration token','text');}"
    "for(const p of Object.values(params.policies||{})){const d=p.en||Object.values(p)"
    ".find(v=>v&&v.url);if(d){const a=document.createElement('a');a.href=d.url;a.target='_blank';"
    "a.textContent=d.name;const li=document.createElement('p');li.append('I accept: ',a);"
    "form.insertBefore(li,form.lastChild);}}"
    "form.onsubmit=async e=>{e.preventDefault();const body={session};"
    "for(const i of form.querySelectorAll('input'))body[i.name]=i.value;"
    "const r=await fetch(location.pathname,{method:'POST',"
    "headers:{'Content-Type':'application/json'},body:JSON.stringify(body)});"
    "if(!r.ok){note.textContent=(await r.json()).error;return;}"
    "form.remove();note.style.color='#060';note.textContent='Done. You can close this page.';"
    "if(window.onAuthDone){window.onAuthDone();}"
    "else if(window.opener&&window.opener.postMessage){window.opener.postMessage('authDone','*');}"
    "};";

static const char login_page[] =
    HEAD "<h1>Sign in</h1><form id=\"form\"><input name=\"user\" placeholder=\"User name\">"
         "<input name=\"password\" type=\"password\" placeholder=\"Password\">"
         "<button>Sign in</button></form><p id=\"note\"></p><script>"
         "const form=document.getElementById('form'),note=document.getElementById('note');"
         "form.onsubmit=async e=>{e.preventDefault();"
         "const body=Object.fromEntries(new URLSearchParams(location.search));"
         "if('refresh_token' in body)body.refresh_token=body.refresh_token==='true';"
         "Object.assign(body,{type:'m.login.password',password:form.password.value,"
         "identifier:{type:'m.id.user',user:form.user.value}});"
         "const r=await fetch('/_matrix/client/v3/login',{method:'POST',"
         "headers:{'Content-Type':'application/json'},body:JSON.stringify(body)});"
         "const answer=await r.json();if(!r.ok){note.textContent=answer.error;return;}"
         "form.remove();note.style.color='#060';note.textContent='You are signed in.';"
         "if(window.matrixLogin&&window.matrixLogin.onLogin)window.matrixLogin.onLogin(answer);};"
         "</script></body></html>";

static void reply_page(struct http_reply *reply)
{
    reply->content_type = LIT("text/html; charset=utf-8");
    http_reply_header(reply, LIT("Content-Security-Policy"),
                      LIT("default-src 'none'; script-src 'unsafe-inline'; "
                          "style-src 'unsafe-inline'; connect-src 'self'; "
                          "frame-ancestors 'none'"));
}

/* JSON inside a script element: "</script>" must not occur. */
static void write_script_json(struct buf *out, struct slice json)
{
    for (size_t i = 0; i < json.len; i++) {
        if (json.ptr[i] == '<') {
            buf_add(out, LIT("\\u003c"));
        } else {
            buf_add_byte(out, json.ptr[i]);
        }
    }
}

static struct err read_stage(struct hs *hs, const struct http_request *request,
                             struct slice session, enum uia_stage *stage_out)
{
    if (!hs_uia_parse_stage(request->params[0], stage_out)) {
        return err_public(ERR_M_NOT_FOUND, "There is no such type of authentication.");
    }
    if (!session.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "session is missing.");
    }
    return hs_uia_awaits(hs, session, *stage_out)
               ? OK
               : err_public(ERR_M_UNKNOWN_400, "This session is over or does not wait for this.");
}

static struct err get_stage(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct hs *hs = app;
    enum uia_stage stage = UIA_DUMMY;
    struct slice terms = hs->conf->registration_terms;
    TRY(read_stage(hs, request, http_query_get(ctx, request, LIT("session")), &stage));
    reply_page(reply);
    buf_add(&reply->body, LIT(HEAD "<h1>Confirm that it is you</h1><form id=\"form\">"
                                   "<button>Continue</button></form><p id=\"note\"></p>"
                                   "<script>const stage="));
    json_write_string(&reply->body, request->params[0]);
    buf_add(&reply->body, LIT(",params="));
    write_script_json(&reply->body, stage == UIA_TERMS && terms.len > 0 ? terms : LIT("{}"));
    buf_add(&reply->body, LIT(";"));
    buf_add(&reply->body, slice_of(stage_script));
    buf_add(&reply->body, LIT("</script></body></html>"));
    return OK;
}

static struct err post_stage(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    enum uia_stage stage = UIA_DUMMY;
    bool right = false;
    const struct uia_form form = {
        .session = json_get_string(&request->json, LIT("session")),
        .user = json_get_string(&request->json, LIT("user")),
        .password = json_get_string(&request->json, LIT("password")),
        .token = json_get_string(&request->json, LIT("token")),
    };
    TRY(read_stage(app, request, form.session, &stage));
    TRY(hs_uia_complete(app, ctx, stage, &form, &right));
    if (!right) {
        return err_public(ERR_M_FORBIDDEN, "What you entered is not right.");
    }
    http_reply_empty(reply);
    return OK;
}

static struct err get_login_page(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    (void)app;
    (void)ctx;
    (void)request;
    reply_page(reply);
    buf_add(&reply->body, slice_of(login_page));
    return OK;
}

#define STAGE "/_matrix/client/v3/auth/{type}/fallback/web"
#define LOGIN "/_matrix/static/client/login"
static const struct http_route routes[] = {
    {HTTP_GET, STAGE, HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_stage,
     "Fallback", NULL, HTTP_NO_FORMAT},
    {HTTP_POST, STAGE, HTTP_AUTH_NONE, HTTP_RATE_LOGIN, HTTP_BODY_JSON, HTTP_LANE_NONE,
     CS_ACCOUNT_BODY_BYTES_MAX, post_stage, "Fallback", NULL, 0},
    {HTTP_GET, LOGIN "/", HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_login_page, "Login Fallback", NULL, HTTP_NO_FORMAT},
    {HTTP_GET, LOGIN, HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_login_page, "Login Fallback", NULL, HTTP_NO_FORMAT},
};
const struct http_route_table cs_auth_pages_routes = {routes, COUNT_OF(routes)};
