import Testing
@testable import UI

/// What a person does, key by key, against a cluster that answers.
@Suite struct SessionTests {
    static func at(_ key: String, mode: WriteMode = .readWrite, _ size: Size = Size(columns: 120, rows: 36)) -> Session {
        var session = Session(size, mode: mode)
        session.tell(.cluster(session.model.cluster))
        session.press(KeyPress("2"))
        session.wait()
        session.press(KeyPress(":"))
        session.type("go \(key)\n")
        session.wait(400)
        return session
    }

    static func value(_ session: Session, _ key: String) -> String? { session.cluster.entry(KeyBytes(key)).map { String(decoding: $0.value, as: UTF8.self) } }

    @Test func directoriesOpenLazilyAndOnlyWhatIsSeenIsAsked() {
        var session = Session()
        session.tell(.cluster(session.model.cluster))
        #expect(session.commands.isEmpty)
        session.press(KeyPress("2"))
        session.wait()
        let first = session.commands.compactMap { if case .loadDirectory(let request) = $0 { request } else { nil } }
        #expect(first.map(\.prefix) == [KeyBytes([])])
        #expect(session.commands.contains(.followKeys(true)))
        session.press(.enter)
        session.press(KeyPress("j"), KeyPress("l"))
        let later = session.commands.compactMap { if case .loadDirectory(let request) = $0 { request } else { nil } }
        #expect(later.map(\.prefix) == [KeyBytes([]), KeyBytes("/"), KeyBytes("/app/")])
        session.press(KeyPress("h"))
        #expect(!session.screen.contains("▸ api/"))
    }

    @Test func editWritesGuardedByTheRevisionThatWasSeen() {
        var session = Self.at("/app/web/cfg/motd")
        let revision = session.model.keys.value.current!.summary.modRevision
        session.press(KeyPress("e"), KeyPress(.end))
        session.type("!")
        session.press(.control("s"))
        #expect(session.commands.contains { if case .put(_, KeyBytes("/app/web/cfg/motd"), _, 0, .modRevision(revision)) = $0 { true } else { false } })
        #expect(Self.value(session, "/app/web/cfg/motd") == "Welcome aboard.!\nMind the step.")
        #expect(session.model.keys.editor == nil)
        #expect(session.screen.contains("put ok 1.9ms rev"))
        session.press(KeyPress("U"))
        #expect(Self.value(session, "/app/web/cfg/motd") == "Welcome aboard.\nMind the step.")
        #expect(session.screen.contains("undone: put /app/web/cfg/motd"))
    }

    @Test func oneLineJSONStaysOnOneLine() {
        var session = Self.at("/app/web/cfg/limits")
        session.press(KeyPress("e"), KeyPress(.down), KeyPress(.end), KeyPress(.backspace))
        session.type("1")
        session.press(.control("s"))
        #expect(Self.value(session, "/app/web/cfg/limits") == #"{"rps":251}"#)
    }

    @Test func aChangeMeanwhileIsShownAndNotOverwritten() {
        var session = Scene.play(.conflict, Size(columns: 120, rows: 36))
        let theirs = #"{"beta":true,"ttl":45,"regions":["eu"],"owner":null}"#
        #expect(Self.value(session, "/app/web/cfg/flags") == theirs)
        #expect(session.screen.contains("Changed while you were editing"))
        #expect(session.screen.contains(#"+ "ttl": 60"#) && session.screen.contains(#"+ "ttl": 45"#))
        session.press(KeyPress("m"))
        #expect(Self.value(session, "/app/web/cfg/flags") == theirs, "merge is reviewed before it is written")
        session.press(.control("s"))
        #expect(Self.value(session, "/app/web/cfg/flags")?.contains("60") == true)
        #expect(Self.value(session, "/app/web/cfg/flags")?.contains("us") == false, "their change of another line is kept")
        #expect(session.model.keys.editor == nil)
    }

    @Test func takingTheirsOrOverwritingThem() {
        var take = Scene.play(.conflict, Size(columns: 80, rows: 24))
        take.press(KeyPress("t"))
        #expect(take.model.keys.editor == nil)
        #expect(Self.value(take, "/app/web/cfg/flags")?.contains("45") == true)
        var over = Scene.play(.conflict, Size(columns: 80, rows: 24))
        over.press(KeyPress("o"))
        #expect(over.screen.contains("Overwrite theirs?"))
        over.press(KeyPress("y"))
        #expect(Self.value(over, "/app/web/cfg/flags")?.contains("60") == true)
        var back = Scene.play(.conflict, Size(columns: 80, rows: 24))
        back.press(.escape)
        #expect(back.model.keys.editor?.isModified == true)
    }

    @Test func deletingAPrefixTakesItsNameAndItsCount() {
        var session = Self.at("/app/batch/")
        session.press(KeyPress("D"))
        #expect(session.screen.contains("40 keys"))
        session.type("batc\n")
        #expect(session.cluster.entry(KeyBytes("/app/batch/job/1")) != nil)
        session.type("h\n")
        #expect(session.cluster.entry(KeyBytes("/app/batch/job/1")) == nil)
        #expect(session.screen.contains("deleted 40 keys"))
        #expect(!session.screen.contains("batch/  "))
        session.press(KeyPress("U"))
        session.wait()
        #expect(Self.value(session, "/app/batch/job/40") == "queued")
        #expect(session.screen.contains("▸ batch/"))
    }

    @Test func theCountMustHaveArrivedBeforeAPrefixIsDeleted() {
        var session = Self.at("/app/batch/")
        // The answer is held back.
        _ = update(&session.model, .key(KeyPress("D")), at: session.model.now)
        for character in "batch" { _ = update(&session.model, .key(KeyPress(character)), at: session.model.now) }
        let commands = update(&session.model, .key(KeyPress(.enter)), at: session.model.now)
        #expect(commands.isEmpty)
        #expect(session.screen.contains("counting…"))
    }

    @Test func oneKeyIsDeletedWithYesAndOnAnAskingClusterByName() {
        var session = Self.at("/app/web/cfg/motd")
        session.press(KeyPress("D"), KeyPress("x"))
        #expect(Self.value(session, "/app/web/cfg/motd") != nil)
        session.press(KeyPress("y"))
        #expect(Self.value(session, "/app/web/cfg/motd") == nil)
        var asking = Self.at("/app/web/cfg/motd", mode: .ask)
        asking.press(KeyPress("D"), KeyPress("y"), KeyPress(.enter))
        #expect(Self.value(asking, "/app/web/cfg/motd") != nil)
        asking.press(.backspace)
        asking.type("motd\n")
        #expect(Self.value(asking, "/app/web/cfg/motd") == nil)
    }

    @Test func markedKeysAreDeletedTogetherAndComeBackTogether() {
        var session = Self.at("/app/web/cfg/flags")
        session.press(KeyPress(" "), KeyPress(" "))
        #expect(session.screen.contains("2 marked"))
        session.press(KeyPress("D"))
        #expect(session.screen.contains("Delete 2 marked keys?"))
        session.press(KeyPress("y"))
        #expect(Self.value(session, "/app/web/cfg/flags") == nil && Self.value(session, "/app/web/cfg/limits") == nil)
        #expect(session.model.keys.marks.isEmpty)
        session.press(KeyPress("U"))
        #expect(Self.value(session, "/app/web/cfg/limits") == #"{"rps":250}"#)
    }

    @Test func renameMovesValueAndLeaseAndRefusesATakenName() {
        var session = Self.at("/locks/build/7a31")
        session.press(KeyPress("R"))
        for _ in 0..<4 { session.press(.backspace) }
        session.type("8b\n")
        #expect(session.cluster.entry(KeyBytes("/locks/build/8b"))?.summary.lease == 0x7a31)
        #expect(Self.value(session, "/locks/build/7a31") == nil)
        session.wait(300)
        #expect(session.model.keys.selectedKey == KeyBytes("/locks/build/8b"), "the selection follows")
        session.press(KeyPress("R"), .control("u"))
        session.type("registry\n")
        #expect(session.screen.contains("not renamed"))
        #expect(Self.value(session, "registry") == "plain key without a separator")
    }

    @Test func historyShowsOldVersionsAndRestoresOneAsANewRevision() {
        var session = Self.at("/app/web/cfg/flags")
        #expect(session.screen.contains(#""beta": false → true"#))
        session.press(KeyPress("t"), KeyPress("j"), KeyPress("j"), KeyPress(.enter))
        #expect(session.screen.contains("not the value now"))
        #expect(session.screen.contains(#""beta": false"#))
        session.press(KeyPress("R"))
        #expect(Self.value(session, "/app/web/cfg/flags") == #"{"beta":false,"ttl":3}"#)
        #expect(session.cluster.entry(KeyBytes("/app/web/cfg/flags"))?.summary.version == 4)
    }

    @Test func filterFindsAnywhereAndEnterGoesThere() {
        var session = Self.at("/registry")
        session.press(KeyPress("/"))
        session.type("quota")
        session.wait()
        #expect(session.screen.contains("2 matches"))
        session.press(KeyPress(.enter), KeyPress("j"), KeyPress(.enter))
        session.wait()
        #expect(session.model.keys.search == nil)
        #expect(session.model.keys.selectedKey == KeyBytes("/app/api/quota/us"))
        session.press(KeyPress("/"))
        session.type("/svc/")
        session.wait()
        #expect(session.commands.contains { if case .search(_, KeyBytes("/svc/"), [], _) = $0 { true } else { false } }, "a path is asked as a prefix")
        session.press(.escape)
        #expect(session.model.keys.search == nil)
    }

    @Test func theTreeFollowsOthersAndMarksWhatChanged() {
        var session = Self.at("/app/web/cfg/flags")
        session.meanwhile { $0.put("/app/web/cfg/flags", #"{"beta":false}"#) }
        session.wait(300)
        #expect(session.screen.contains(#""beta": false"#), "the value on the screen is the new one")
        session.meanwhile { $0.put("/app/web/cfg/aaa", "first") }
        #expect(session.screen.contains("aaa"))
        #expect(session.model.keys.selectedKey == KeyBytes("/app/web/cfg/flags"), "the selection stays on its key")
        session.meanwhile { $0.delete(KeyBytes("/app/web/cfg/aaa")) }
        #expect(!session.screen.contains("aaa"))
        session.meanwhile { $0.delete(KeyBytes("/app/web/cfg/flags")) }
        session.wait(300)
        #expect(session.model.keys.selectedKey != KeyBytes("/app/web/cfg/flags"))
    }

    @Test func aStreamThatMissedChangesHasTheListReadAgain() {
        var session = Self.at("/app/web/cfg/flags")
        session.cluster.put("/app/web/cfg/missed", "x")
        session.cluster.changes = []
        #expect(!session.screen.contains("missed"))
        session.tell(.keysStale)
        session.wait(300)
        #expect(session.screen.contains("missed"))
        #expect(session.model.keys.selectedKey == KeyBytes("/app/web/cfg/flags"))
    }

    @Test func aClockSetBackStopsNothing() {
        var session = Self.at("/app/web/cfg/flags")
        let earlier = session.model.now.advanced(byMilliseconds: -3_600_000)
        _ = update(&session.model, .tick, at: earlier)
        #expect(session.model.now == earlier)
        session.press(KeyPress("j"))
        session.wait(300)
        #expect(session.model.keys.value.current?.key == KeyBytes("/app/web/cfg/limits"))
        session.wait(2_500)
        #expect(session.model.rates.perSecond.count >= 2)
    }

    @Test func flatListAndOtherSeparators() {
        var session = Self.at("/app/web/cfg/flags")
        session.press(KeyPress("s"))
        session.wait()
        #expect(session.model.keys.selectedKey == KeyBytes("/app/web/cfg/flags"))
        #expect(session.screen.contains("/app/web/cfg/motd"))
        session.press(KeyPress(":"))
        session.type("separator .\n")
        session.wait()
        #expect(session.model.keys.tree.separator == UInt8(ascii: "."))
        #expect(session.screen.contains("tree ."))
    }

    @Test func bottomOfALongListIsLoadedFromItsEnd() {
        var session = Session()
        for index in 1_000..<3_000 { session.cluster.put("k\(index)", "x") }
        session.cluster.changes = []
        session.press(KeyPress("2"))
        session.wait()
        session.press(KeyPress("G"))
        session.wait()
        #expect(session.model.keys.selectedKey == KeyBytes("registry"))
        #expect(session.model.keys.tree.rows.count < 700)
        for _ in 0..<40 { session.press(.pageUp) }
        session.wait()
        #expect(session.model.keys.selectedRow?.isGap == false)
        session.press(KeyPress("g"))
        #expect(session.model.keys.selection == 0)
    }

    @Test func binaryValuesAreShownAndEditedAsHex() {
        var session = Self.at("bin\\x00\\xff")
        #expect(session.screen.contains("hex · 5 B"))
        session.press(KeyPress("e"))
        #expect(session.screen.contains("00 01 02 ff 41"))
        session.press(.end)
        session.type(" 7")
        session.press(.control("s"))
        #expect(session.screen.contains("hex digits are not complete"))
        session.type("f")
        session.press(.control("s"))
        #expect(session.cluster.entry(KeyBytes([0x62, 0x69, 0x6e, 0x00, 0xff]))?.value == [0, 1, 2, 0xff, 0x41, 0x7f])
    }

    @Test func externalEditorComesBackGuardedAndKeepsMissingLineEnd() {
        var session = Self.at("/app/web/cfg/motd")
        session.press(KeyPress("v"))
        guard case .openEditor(let id, let content, let kind)? = session.commands.last else { Issue.record("no editor"); return }
        #expect(String(decoding: content, as: UTF8.self) == "Welcome aboard.\nMind the step." && kind == "txt")
        session.tell(.editorClosed(id, content: content + [0x0a], message: nil))
        #expect(session.screen.contains("unchanged: nothing written"))
        session.press(KeyPress("v"))
        guard case .openEditor(let again, _, _)? = session.commands.last else { Issue.record("no editor"); return }
        session.tell(.editorClosed(again, content: Array("Hello\n".utf8), message: nil))
        #expect(Self.value(session, "/app/web/cfg/motd") == "Hello")
    }

    @Test func newKeyIsWrittenOnlyIfItDoesNotExist() {
        var session = Self.at("/app/web/cfg/flags")
        session.press(KeyPress("A"))
        #expect(session.screen.contains("/app/web/cfg/"))
        session.type("fresh\n")
        session.type("v")
        session.press(.control("s"))
        #expect(Self.value(session, "/app/web/cfg/fresh") == "v")
        session.wait()
        #expect(session.model.keys.selectedKey == KeyBytes("/app/web/cfg/fresh"))
        session.press(KeyPress("A"))
        session.type("raced\n")
        session.type("mine")
        session.meanwhile { $0.put("/app/web/cfg/raced", "theirs") }
        session.press(.control("s"))
        #expect(Self.value(session, "/app/web/cfg/raced") == "theirs")
        #expect(session.screen.contains("Changed while you were editing"))
    }

    @Test func askModeShowsTheChangeBeforeItWritesIt() {
        var session = Self.at("/app/web/cfg/limits", mode: .ask)
        session.press(KeyPress("e"), KeyPress(.down), KeyPress(.end))
        session.type("9")
        session.press(.control("s"))
        #expect(session.screen.contains("Write this change?"))
        #expect(session.screen.contains(#"+   "rps": 2509"#))
        #expect(Self.value(session, "/app/web/cfg/limits") == #"{"rps":250}"#)
        session.press(KeyPress("y"))
        #expect(Self.value(session, "/app/web/cfg/limits") == #"{"rps":2509}"#)
    }

    @Test func mouseSelectsOpensAndScrolls() {
        var session = Session()
        session.tell(.cluster(session.model.cluster))
        let tab = session.model.tabPlaces(ScreenLayout(session.model.size).tabs)[1].rect
        session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: tab.column + 2, row: tab.row))))
        #expect(session.model.screen == .keys)
        session.wait()
        session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: 5, row: 4))))
        #expect(session.model.keys.selection == 1)
        session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: 5, row: 3))))
        session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: 5, row: 3))))
        session.wait()
        #expect(session.screen.contains("▾ /"))
        session.act(.mouse(MouseEvent(kind: .wheelDown, position: Position(column: 5, row: 6))))
        #expect(session.model.keys.selection == 3)
    }

    @Test func nodeKeysSendTheirCommandsAndToggle() {
        var session = Session()
        session.tell(.cluster(session.model.cluster))
        session.press(KeyPress("P"), KeyPress("X"), KeyPress("K"), KeyPress("L"), KeyPress("W"))
        let id = session.model.cluster.members[0].id
        let expected: [(Command) -> Bool] = [
            { if case .addFault(_, .pause(id), _) = $0 { true } else { false } }, { if case .addFault(_, .isolate(id), _) = $0 { true } else { false } },
            { if case .addFault(_, .kill(id), _) = $0 { true } else { false } }, { if case .transferLeadership(_, id) = $0 { true } else { false } },
            { if case .setWorkload(_, .some) = $0 { true } else { false } },
        ]
        #expect(session.commands.count == 5)
        for (command, isExpected) in zip(session.commands, expected) { #expect(isExpected(command), "\(command)") }
        var state = session.model.cluster
        state.members[0].health = .paused(since: session.model.now)
        session.tell(.cluster(state))
        session.press(KeyPress("P"))
        #expect({ if case .healFault(_, .pause(id))? = session.commands.last { true } else { false } }())
        state.members[0].health = .down(since: session.model.now, reason: "killed")
        session.tell(.cluster(state))
        session.press(KeyPress("K"))
        #expect(session.screen.contains("n1 is down: R restarts it"))
        session.press(KeyPress("R"))
        #expect({ if case .restartNode(_, id)? = session.commands.last { true } else { false } }())
    }

    @Test func anElectionReadsAsOneLine() {
        let screen = Scene.play(.overview, Size(columns: 80, rows: 24)).screen
        #expect(screen.contains("♛ n3 elected term 11→12, n1 → n3, writes unavailable 1.08s"))
        let narrow = Scene.play(.overview, Size(columns: 120, rows: 36)).screen
        #expect(narrow.contains("n1 → n3 t12, no writes 1.08s"))
    }
}
