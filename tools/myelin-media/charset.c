/* The text of a page as UTF-8, whatever its characters were. What iconv reads of the system is read
 * before the process is confined, so all that it may need is opened then. */
#include "tools/myelin-media/helper.h"

#include "homeserver/base/buf.h"
#include "homeserver/base/mem.h"

#include <errno.h>
#include <iconv.h>

enum { PRESCAN_BYTES = 4096, CHARSETS = 26, OUT_BYTES = 4096 };

/* Labels that pages use, and what iconv calls it. Spec of the labels: WHATWG, Encoding. */
static const struct {
    const char *name, *labels;
} charsets[CHARSETS] = {
    {"UTF-8", " utf-8 utf8 unicode-1-1-utf-8 "},
    {"WINDOWS-1252", " windows-1252 cp1252 iso-8859-1 iso8859-1 latin1 us-ascii ascii l1 "},
    {"WINDOWS-1250", " windows-1250 cp1250 "},
    {"WINDOWS-1251", " windows-1251 cp1251 "},
    {"WINDOWS-1253", " windows-1253 cp1253 "},
    {"WINDOWS-1254", " windows-1254 cp1254 iso-8859-9 latin5 "},
    {"WINDOWS-1255", " windows-1255 cp1255 "},
    {"WINDOWS-1256", " windows-1256 cp1256 "},
    {"WINDOWS-1257", " windows-1257 cp1257 "},
    {"WINDOWS-1258", " windows-1258 cp1258 "},
    {"CP874", " windows-874 tis-620 iso-8859-11 "},
    {"ISO-8859-2", " iso-8859-2 latin2 "},
    {"ISO-8859-5", " iso-8859-5 "},
    {"ISO-8859-6", " iso-8859-6 "},
    {"ISO-8859-7", " iso-8859-7 greek "},
    {"ISO-8859-8", " iso-8859-8 hebrew "},
    {"ISO-8859-15", " iso-8859-15 latin9 "},
    {"KOI8-R", " koi8-r koi8 "},
    {"KOI8-U", " koi8-u "},
    {"CP932", " shift_jis shift-jis sjis x-sjis windows-31j "},
    {"EUC-JP", " euc-jp x-euc-jp "},
    {"ISO-2022-JP", " iso-2022-jp "},
    {"GB18030", " gb18030 gbk gb2312 x-gbk "},
    {"BIG5-HKSCS", " big5 big5-hkscs "},
    {"CP949", " euc-kr ks_c_5601-1987 windows-949 "},
    {"UTF-16LE", " utf-16 utf-16le "},
};
enum { UTF_8 = 0, WINDOWS_1252 = 1, UTF_16LE = CHARSETS - 1 };

struct charset_reader {
    iconv_t handles[CHARSETS];
};

struct charset_reader *charset_reader_new(void)
{
    struct charset_reader *reader = mem_alloc(sizeof *reader);
    for (size_t i = 0; i < CHARSETS; i++) {
        char out[16];
        char in[] = "ab";
        char *from = in;
        char *to = out;
        size_t in_left = 2;
        size_t out_left = sizeof out;
        reader->handles[i] = iconv_open("UTF-8", charsets[i].name);
        if (reader->handles[i] != (iconv_t)-1) {
            iconv(reader->handles[i], &from, &in_left, &to, &out_left);
        }
    }
    return reader;
}

void charset_reader_free(struct charset_reader **reader)
{
    for (size_t i = 0; *reader && i < CHARSETS; i++) {
        if ((*reader)->handles[i] != (iconv_t)-1) {
            iconv_close((*reader)->handles[i]);
        }
    }
    mem_free(*reader);
    *reader = NULL;
}

/* --- which one --- */

/* CHARSETS when it is not known. */
static size_t find_label(struct arena *arena, struct slice label)
{
    struct slice trimmed = slice_trim(label);
    char *name = arena_cstr(arena, trimmed);
    for (size_t i = 0; i < trimmed.len; i++) {
        name[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + ('a' - 'A') : name[i]);
    }
    struct slice wanted = arena_printf(arena, " %s ", name);
    size_t i = 0;
    while (trimmed.len && i < CHARSETS && !slice_contains(slice_of(charsets[i].labels), wanted)) {
        i++;
    }
    return trimmed.len ? i : CHARSETS;
}

static bool ends_label(char c)
{
    return c == '"' || c == '\'' || c == '>' || c == ';' || c == ' ' || c == '/' || c == '\n';
}

/* What a <meta charset=...> or <meta http-equiv ... charset=...> near the start says. */
static struct slice declared(struct slice page)
{
    struct slice head = slice_sub(page, 0, PRESCAN_BYTES);
    for (size_t i = 0; i + 8 < head.len; i++) {
        if (!slice_eq_nocase(slice_sub(head, i, 8), LIT("charset="))) {
            continue;
        }
        size_t from = i + 8;
        from += head.ptr[from] == '"' || head.ptr[from] == '\'';
        size_t end = from;
        while (end < head.len && !ends_label(head.ptr[end])) {
            end++;
        }
        return slice_sub(head, from, end - from);
    }
    return (struct slice){0};
}

static size_t choose(struct arena *arena, struct slice page, struct slice charset)
{
    if (slice_has_prefix(page, LIT("\xEF\xBB\xBF"))) {
        return UTF_8;
    }
    if (slice_has_prefix(page, LIT("\xFF\xFE"))) {
        return UTF_16LE;
    }
    size_t found = find_label(arena, charset);
    found = found < CHARSETS ? found : find_label(arena, declared(page));
    if (found < CHARSETS) {
        return found;
    }
    return slice_is_utf8(slice_sub(page, 0, page.len > 8 ? page.len - 4 : page.len)) ? UTF_8
                                                                                     : WINDOWS_1252;
}

/* --- converting --- */

static void add_text(struct buf *out, struct slice text)
{
    for (size_t i = 0; i < text.len; i++) { /* the reader of pages ends at a NUL */
        buf_add_byte(out, text.ptr[i] ? text.ptr[i] : ' ');
    }
}

struct slice charset_convert(struct charset_reader *reader, struct arena *arena, struct slice page,
                             struct slice charset)
{
    iconv_t handle = reader->handles[choose(arena, page, charset)];
    struct buf out;
    buf_init_arena(&out, arena, page.len * 3 + OUT_BYTES);
    if (handle == (iconv_t)-1) {
        return (struct slice){0};
    }
    char *from = (char *)(uintptr_t)page.ptr;
    size_t left = page.len;
    iconv(handle, NULL, NULL, NULL, NULL);
    while (left && !out.overflow) {
        char piece[OUT_BYTES];
        char *to = piece;
        size_t room = sizeof piece;
        size_t got = iconv(handle, &from, &left, &to, &room);
        int error = got == (size_t)-1 ? errno : 0;
        add_text(&out, (struct slice){piece, sizeof piece - room});
        if (error == EILSEQ || error == EINVAL) {
            buf_add(&out, LIT("\xEF\xBF\xBD"));
            from++;
            left--;
        } else if (error && error != E2BIG) {
            break;
        }
    }
    return buf_slice(&out);
}
