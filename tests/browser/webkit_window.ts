/**
 * Minimal WebKitGTK browser that WebKitWebDriver can drive. Unlike the bundled
 * one, it keeps the storage of pages, in a given folder.
 *
 * This module needs Deno.
 *
 * @module
 */

const NULL: Deno.PointerValue = null;

function cstring(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}

/** Runs the browser until it is killed. */
function main(folder: string): void {
  const { symbols: gtk } = Deno.dlopen("libgtk-3.so.0", {
    gtk_init: { parameters: ["pointer", "pointer"], result: "void" },
    gtk_main: { parameters: [], result: "void" },
    gtk_window_new: { parameters: ["i32"], result: "pointer" },
    gtk_container_add: { parameters: ["pointer", "pointer"], result: "void" },
    gtk_widget_show_all: { parameters: ["pointer"], result: "void" },
  });
  const { symbols: gobject } = Deno.dlopen("libgobject-2.0.so.0", {
    // These functions are variadic; the types cover the calls made here.
    g_object_new: {
      parameters: [
        "usize",
        "buffer",
        "pointer",
        "buffer",
        "i32",
        "pointer",
      ],
      result: "pointer",
    },
    g_signal_connect_data: {
      parameters: [
        "pointer",
        "buffer",
        "function",
        "pointer",
        "pointer",
        "i32",
      ],
      result: "usize",
    },
  });
  const { symbols: webkit } = Deno.dlopen("libwebkit2gtk-4.1.so.0", {
    webkit_web_view_get_type: { parameters: [], result: "usize" },
    webkit_website_data_manager_new: {
      parameters: ["buffer", "buffer", "buffer", "buffer", "pointer"],
      result: "pointer",
    },
    webkit_web_context_new_with_website_data_manager: {
      parameters: ["pointer"],
      result: "pointer",
    },
    webkit_web_context_set_automation_allowed: {
      parameters: ["pointer", "i32"],
      result: "void",
    },
    webkit_application_info_new: { parameters: [], result: "pointer" },
    webkit_application_info_set_name: {
      parameters: ["pointer", "buffer"],
      result: "void",
    },
    webkit_automation_session_set_application_info: {
      parameters: ["pointer", "pointer"],
      result: "void",
    },
  });

  // WebKit keeps no pointer to the strings passed here.
  gtk.gtk_init(NULL, NULL);
  const data = webkit.webkit_website_data_manager_new(
    cstring("base-data-directory"),
    cstring(`${folder}/data`),
    cstring("base-cache-directory"),
    cstring(`${folder}/cache`),
    NULL,
  );
  const context = webkit.webkit_web_context_new_with_website_data_manager(data);
  webkit.webkit_web_context_set_automation_allowed(context, 1);

  const newView = new Deno.UnsafeCallback(
    { parameters: ["pointer", "pointer"], result: "pointer" },
    () => {
      const view = gobject.g_object_new(
        webkit.webkit_web_view_get_type(),
        cstring("web-context"),
        context,
        cstring("is-controlled-by-automation"),
        1,
        NULL,
      );
      const window = gtk.gtk_window_new(0);
      gtk.gtk_container_add(window, view);
      gtk.gtk_widget_show_all(window);
      return view;
    },
  );
  const started = new Deno.UnsafeCallback(
    { parameters: ["pointer", "pointer", "pointer"], result: "void" },
    (_context, session) => {
      const info = webkit.webkit_application_info_new();
      webkit.webkit_application_info_set_name(info, cstring("window"));
      webkit.webkit_automation_session_set_application_info(session, info);
      gobject.g_signal_connect_data(
        session,
        cstring("create-web-view"),
        newView.pointer,
        NULL,
        NULL,
        0,
      );
    },
  );
  gobject.g_signal_connect_data(
    context,
    cstring("automation-started"),
    started.pointer,
    NULL,
    NULL,
    0,
  );
  gtk.gtk_main();
}

if (import.meta.main) main(Deno.args[0]!);
