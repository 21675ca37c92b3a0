extension Model {
    mutating func openEditor(_ editor: EditorState) {
        var editor = editor
        // One-line JSON is edited laid out and goes back to one line when it is written.
        if editor.format == .text, let base = editor.base, ValueDocument.isJSON(base.value), !base.value.contains(0x0a), let text = try? JSON.formatted(base.value), text.contains("\n") {
            editor.text = TextEditor(text)
            editor.laidOut = text
        }
        keys.editor = editor
        isEnlarged = false
    }

    var editorRows: Int { max(1, bodyRect.rows - 3) }

    /// Keeps the editor's cursor in sight.
    mutating func settleEditor() {
        guard let editor = keys.editor else { return }
        let rows = overlayIsConflict ? max(1, bodyRect.rows - conflictRows - 3) : editorRows
        let line = editor.text.cursor.line
        if line < editor.scroll { keys.editor!.scroll = line }
        if line >= editor.scroll + rows { keys.editor!.scroll = line - rows + 1 }
    }

    var overlayIsConflict: Bool { if case .conflict? = overlay { true } else { false } }
    var conflictRows: Int { min(15, bodyRect.rows * 2 / 3) }

    mutating func handleEditor(_ key: KeyPress, _ commands: inout [Command]) {
        if let entry = Catalogue.entry(for: key, in: [.editor]) {
            perform(editor: entry.verb, changes: entry.changes, &commands)
            return
        }
        switch key {
        case .control("c"): overlay = .confirm(Confirmation(question: .quit)); return
        case .control("z"): commands.append(.suspend); return
        case .control("l"): commands.append(.redraw); return
        default: break
        }
        guard keys.editor?.savingRequest == nil else { return }
        _ = keys.editor!.text.handle(key, pageRows: editorRows)
    }

    mutating func perform(editor verb: Verb, changes: Bool, _ commands: inout [Command]) {
        if let reason = obstacle(to: verb, changes: changes) { return say(reason, .warn) }
        guard let editor = keys.editor else { return }
        switch verb {
        case .editorSave: save(&commands)
        case .editorExternal: if let bytes = editor.bytes { openExternal(key: editor.key, base: editor.base, content: bytes, &commands) } else { say("the hex digits are not complete", .warn) }
        case .editorUndo: keys.editor!.text.undo()
        case .editorRedo: keys.editor!.text.redo()
        case .editorFormat:
            do throws(JSON.Problem) {
                let text = try JSON.formatted(Array(editor.text.text.utf8))
                if text == editor.text.text { say("laid out already", .dim) } else { keys.editor!.text.replaceAll(text) }
            } catch {
                say("not JSON: \(error.message) at byte \(error.offset)", .warn)
            }
        case .editorCancel:
            if editor.isModified { overlay = .confirm(Confirmation(question: .discardEdit)) } else { keys.editor = nil }
        default: break
        }
    }

    private mutating func save(_ commands: inout [Command]) {
        guard let editor = keys.editor else { return }
        guard let bytes = editor.bytes else { return say("the hex digits are not complete", .warn) }
        if bytes.count > EditorState.sizeLimit { return say("\(Format.bytes(bytes.count)) is more than the server takes (\(Format.bytes(EditorState.sizeLimit)))", .warn) }
        if !editor.isModified, editor.base != nil { return say("nothing changed: nothing written", .dim) }
        if mode == .ask {
            overlay = .confirm(Confirmation(question: .writeEdit))
        } else {
            write(&commands)
        }
    }

    /// Writes what is in the editor, guarded by the revision it is based on.
    mutating func write(overwrite: Bool = false, _ commands: inout [Command]) {
        guard let editor = keys.editor, let bytes = editor.bytes else { return }
        let expecting: Expectation = overwrite ? .none : editor.base.map { .modRevision($0.summary.modRevision) } ?? .absent
        send(.put(key: editor.key, value: bytes, fromEditor: true), &commands) { .put($0, key: editor.key, value: bytes, lease: editor.lease, expecting: expecting) }
        keys.editor?.savingRequest = pendingWrites.last?.request
    }

    // MARK: $EDITOR

    mutating func openExternal(key: KeyBytes, base: KeyValue?, content: [UInt8], _ commands: inout [Command]) {
        let request = newRequest()
        keys.external = ExternalEdit(request: request, key: key, base: base, content: content)
        commands.append(.openEditor(request, content: content, fileExtension: ValueDocument.isJSON(content) ? "json" : "txt"))
    }

    mutating func receiveEditor(_ request: RequestID, _ content: [UInt8]?, _ message: String?, _ commands: inout [Command]) {
        guard let edit = keys.external, edit.request == request else { return }
        keys.external = nil
        guard var content else { return say(message ?? "the editor was left without saving", .dim) }
        // Most editors end the last line; a value that had no line end does not get one by that.
        if content.last == 0x0a, edit.content.last != 0x0a { content.removeLast() }
        if content == edit.content { return say("unchanged: nothing written", .dim) }
        if mode == .readOnly { return say("read-only: the edit was not written", .warn) }
        var editor = EditorState(key: edit.key, base: edit.base, value: content)
        if let open = keys.editor, open.key == edit.key, open.format == editor.format {
            editor = open
            editor.text.replaceAll(editor.format == .text ? String(decoding: content, as: UTF8.self) : HexText.dump(content))
            keys.editor = editor
            return
        }
        // The edit stays in the inline editor until it is written: a conflict must not lose it.
        keys.editor = editor
        save(&commands)
    }

    // MARK: Conflict

    /// The three ways out of a conflict.
    mutating func resolve(_ choice: Int, _ conflict: Conflict, _ commands: inout [Command]) {
        guard let editor = keys.editor else { overlay = nil; return }
        switch choice {
        case 0:
            guard let theirs = conflict.theirs else {
                // Deleted by the other: keeping mine means creating it again.
                overlay = nil
                keys.editor!.base = nil
                keys.editor!.laidOut = nil
                say("it was deleted: ^S creates it again", .warn)
                return
            }
            overlay = nil
            keys.editor!.base = theirs
            keys.editor!.laidOut = nil
            keys.editor!.lease = theirs.summary.lease
            if editor.format == .text { keys.editor!.text.replaceAll(conflict.merge.merged.joined(separator: "\n")) }
            say("merged: look it over, ^S writes on rev \(Format.count(theirs.summary.modRevision))", .warn)
        case 1:
            overlay = nil
            keys.editor = nil
            say("kept theirs, your edit is dropped", .dim)
            schedulePreview()
        default: overlay = .confirm(Confirmation(question: .overwrite))
        }
    }
}

/// An edit that is in $EDITOR now.
struct ExternalEdit: Hashable, Sendable {
    var request: RequestID
    var key: KeyBytes
    var base: KeyValue?
    var content: [UInt8]
}
