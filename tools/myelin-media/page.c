/* What a page says of itself: Open Graph, else Twitter's cards, else its title, description and
 * first picture. Read by libxml2. */
#include "tools/myelin-media/helper.h"

#include "homeserver/base/mem.h"

#include <libxml/HTMLparser.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIELDS_MAX = 64,
    NAME_BYTES_MAX = 64,
    VALUE_BYTES_MAX = 2048,
    TEXT_BYTES_MAX = 400,
    NODES_MAX = 200000,
};

struct field {
    struct slice name, value;
};

struct page {
    struct arena *arena;
    struct field fields[FIELDS_MAX];
    size_t count;
    struct buf paragraphs, text; /* of the body */
};

/* --- fields --- */

static struct slice find(const struct page *page, struct slice name)
{
    for (size_t i = 0; i < page->count; i++) {
        if (slice_eq(page->fields[i].name, name)) {
            return page->fields[i].value;
        }
    }
    return (struct slice){0};
}

static struct slice cut(struct slice text, size_t max)
{
    size_t len = text.len < max ? text.len : max;
    while (len > 0 && len < text.len && ((unsigned char)text.ptr[len] & 0xC0) == 0x80) {
        len--;
    }
    return slice_sub(text, 0, len);
}

/* White space of any length becomes one space. */
static void add_collapsed(struct buf *out, struct slice text)
{
    for (size_t i = 0; i < text.len && !out->overflow; i++) {
        bool is_space = text.ptr[i] != '\0' && strchr(" \t\r\n\f\v", text.ptr[i]) != NULL;
        if (!is_space) {
            buf_add_byte(out, text.ptr[i]);
        } else if (out->len && out->ptr[out->len - 1] != ' ') {
            buf_add_byte(out, ' ');
        }
    }
}

/* The first one of a name counts. */
static void add_field(struct page *page, struct slice name, struct slice value)
{
    struct buf clean;
    buf_init_arena(&clean, page->arena, VALUE_BYTES_MAX + 8);
    add_collapsed(&clean, cut(value, VALUE_BYTES_MAX));
    struct slice text = slice_trim(buf_slice(&clean));
    bool is_new =
        text.len && name.len <= NAME_BYTES_MAX && page->count < FIELDS_MAX && !find(page, name).ptr;
    if (is_new) {
        page->fields[page->count++] =
            (struct field){arena_copy(page->arena, name), arena_copy(page->arena, text)};
    }
}

/* --- elements --- */

static struct slice name_of(const xmlNode *node)
{
    return slice_of((const char *)node->name);
}

static struct slice attribute(struct page *page, xmlNode *node, const char *name)
{
    xmlChar *value = xmlGetProp(node, (const xmlChar *)name);
    struct slice copy = {0};
    if (value) {
        copy = arena_copy(page->arena, slice_of((const char *)value));
        xmlFree(value);
    }
    return copy;
}

static bool is_one_of(struct slice name, const char *names)
{
    char padded[32];
    if (name.len == 0 || name.len + 3 > sizeof padded) {
        return false;
    }
    padded[0] = ' ';
    memcpy(padded + 1, name.ptr, name.len);
    memcpy(padded + 1 + name.len, " ", 2);
    return strstr(names, padded) != NULL;
}

static void add_meta(struct page *page, xmlNode *node)
{
    static const char *const others[] = {"twitter:title", "twitter:description", "twitter:image",
                                         "twitter:image:src", "description"};
    struct slice property = attribute(page, node, "property");
    struct slice name = attribute(page, node, "name");
    struct slice content = attribute(page, node, "content");
    struct slice both[] = {property, name};
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        bool wanted = slice_has_prefix(both[i], LIT("og:"));
        for (size_t j = 0; !wanted && j < COUNT_OF(others); j++) {
            wanted = slice_eq_nocase(both[i], slice_of(others[j]));
            both[i] = wanted ? slice_of(others[j]) : both[i];
        }
        if (wanted) {
            add_field(page, both[i], content);
        }
    }
    if (slice_eq_nocase(attribute(page, node, "itemprop"), LIT("image"))) {
        add_field(page, LIT("meta_image"), content);
    }
}

static void add_link(struct page *page, xmlNode *node)
{
    struct slice rel = attribute(page, node, "rel");
    struct slice href = attribute(page, node, "href");
    if (slice_eq_nocase(attribute(page, node, "type"), LIT("application/json+oembed"))) {
        add_field(page, LIT("oembed"), href);
    } else if (slice_eq_nocase(rel, LIT("image_src"))) {
        add_field(page, LIT("link_image"), href);
    } else if (slice_eq_nocase(rel, LIT("apple-touch-icon"))) {
        add_field(page, LIT("icon"), href);
    }
}

/* Not one that is there to be unseen. */
static void add_picture(struct page *page, xmlNode *node)
{
    enum { EDGE_MIN = 32 };
    struct slice source = attribute(page, node, "src");
    struct slice edges[] = {attribute(page, node, "width"), attribute(page, node, "height")};
    bool wanted = source.len && !slice_has_prefix(source, LIT("data:"));
    for (size_t i = 0; i < COUNT_OF(edges); i++) {
        uint64_t edge = 0;
        wanted = wanted && (!slice_parse_u64(edges[i], &edge) || edge >= EDGE_MIN);
    }
    if (wanted) {
        add_field(page, LIT("first_image"), source);
    }
}

static void add_content(struct page *page, xmlNode *node, struct slice name)
{
    xmlChar *text = xmlNodeGetContent(node);
    if (text) {
        add_field(page, name, slice_of((const char *)text));
        xmlFree(text);
    }
}

static void add_text(struct page *page, const xmlNode *node)
{
    struct slice text = slice_of((const char *)node->content);
    const xmlNode *parent = node->parent;
    for (int up = 0; up < 4 && parent && parent->name; up++) {
        if (slice_eq(name_of(parent), LIT("p"))) {
            add_collapsed(&page->paragraphs, text);
            add_collapsed(&page->paragraphs, LIT(" "));
            break;
        }
        parent = parent->parent;
    }
    add_collapsed(&page->text, text);
    add_collapsed(&page->text, LIT(" "));
}

/* Whether what stands inside is of interest. */
static bool visit(struct page *page, xmlNode *node)
{
    if (node->type == XML_TEXT_NODE && node->content) {
        add_text(page, node);
    }
    if (node->type != XML_ELEMENT_NODE || !node->name) {
        return node->type == XML_HTML_DOCUMENT_NODE;
    }
    struct slice name = name_of(node);
    if (slice_eq(name, LIT("meta"))) {
        add_meta(page, node);
    } else if (slice_eq(name, LIT("link"))) {
        add_link(page, node);
    } else if (slice_eq(name, LIT("base"))) {
        add_field(page, LIT("base"), attribute(page, node, "href"));
    } else if (slice_eq(name, LIT("img"))) {
        add_picture(page, node);
    } else if (slice_eq(name, LIT("title")) || slice_eq(name, LIT("h1"))) {
        add_content(page, node, name);
    }
    return !is_one_of(name, " script style title noscript nav header footer aside form select "
                            "button template iframe svg object ");
}

/* In the order of the page, without recursion. */
static void walk(struct page *page, xmlNode *root)
{
    xmlNode *node = root;
    for (size_t seen = 0; node && seen < NODES_MAX; seen++) {
        bool goes_in = visit(page, node) && node->children;
        if (goes_in) {
            node = node->children;
            continue;
        }
        while (node && node != root && !node->next) {
            node = node->parent;
        }
        node = node && node != root ? node->next : NULL;
    }
}

/* --- the answer --- */

static struct slice first_of(const struct page *page, const char *const *names, size_t count)
{
    struct slice value = {0};
    for (size_t i = 0; i < count && !value.ptr; i++) {
        value = find(page, slice_of(names[i]));
    }
    return value;
}

/* Cut between two words. */
static struct slice shortened(struct arena *arena, const struct buf *text)
{
    struct slice whole = slice_trim(buf_slice(text));
    if (whole.len <= TEXT_BYTES_MAX) {
        return whole;
    }
    struct slice part = cut(whole, TEXT_BYTES_MAX);
    size_t space = slice_find_last(part, ' ');
    part = space < part.len ? slice_sub(part, 0, space) : part;
    return arena_concat(arena, part, LIT("\xE2\x80\xA6"));
}

static void complete(struct page *page)
{
    static const char *const titles[] = {"og:title", "twitter:title", "title", "h1"};
    static const char *const descriptions[] = {"og:description", "twitter:description",
                                               "description"};
    static const char *const images[] = {"og:image:secure_url", "og:image",          "og:image:url",
                                         "twitter:image",       "twitter:image:src", "link_image",
                                         "meta_image",          "first_image",       "icon"};
    add_field(page, LIT("og:title"), first_of(page, titles, COUNT_OF(titles)));
    struct slice description = first_of(page, descriptions, COUNT_OF(descriptions));
    if (!description.ptr) {
        description =
            shortened(page->arena, page->paragraphs.len > 1 ? &page->paragraphs : &page->text);
    }
    add_field(page, LIT("og:description"), description);
    add_field(page, LIT("image"), first_of(page, images, COUNT_OF(images)));
}

static struct slice encode(const struct page *page)
{
    struct buf out;
    buf_init_arena(&out, page->arena, FIELDS_MAX * (VALUE_BYTES_MAX + NAME_BYTES_MAX + 16));
    for (size_t i = 0; i < page->count; i++) {
        const struct field *field = &page->fields[i];
        if (slice_has_prefix(field->name, LIT("og:")) || slice_eq(field->name, LIT("image")) ||
            slice_eq(field->name, LIT("base")) || slice_eq(field->name, LIT("oembed"))) {
            pack_bytes(&out, field->name);
            pack_bytes(&out, field->value);
        }
    }
    return buf_slice(&out);
}

void page_run(struct charset_reader *reader, struct arena *arena, const struct media_job *job,
              struct slice input, struct media_reply *reply_out)
{
    struct page *page = arena_alloc(arena, sizeof *page);
    struct slice text = charset_convert(reader, arena, input, job->charset);
    *reply_out = (struct media_reply){.result = MEDIA_RESULT_NONE};
    page->arena = arena;
    buf_init_arena(&page->paragraphs, arena, TEXT_BYTES_MAX * 3);
    buf_init_arena(&page->text, arena, TEXT_BYTES_MAX * 3);
    xmlDoc *document =
        text.len == 0 || text.len > INT32_MAX
            ? NULL
            : htmlReadMemory(text.ptr, (int)text.len, NULL, "UTF-8",
                             HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING |
                                 HTML_PARSE_NONET | HTML_PARSE_IGNORE_ENC | HTML_PARSE_COMPACT);
    if (!document) {
        return;
    }
    walk(page, (xmlNode *)document);
    xmlFreeDoc(document);
    complete(page);
    *reply_out = (struct media_reply){.result = MEDIA_RESULT_MADE, .bytes = encode(page)};
}

void page_init(void)
{
    LIBXML_TEST_VERSION
    xmlInitParser();
}
